"""The formats of exported files: writing each, and running it."""

from __future__ import annotations

import errno
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from sparseattn.errors import DataError, MissingExtraError, PlanError, first_line, unknown
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.int8 import Batches, quantize_onnx, quantize_openvino, quietly

#: Runs a file: from input names and tensors to output names and tensors.
Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

#: Under which name a file keeps its `Record`.
_RECORD = "sparseattn"

#: The batch that is traced: no size in it is 1, which a tracer would take for a constant.
_BATCH, _LENGTH = 2, 70
#: First version of ONNX's operators with all that is used.
_OPSET = 20


@dataclass(frozen=True)
class Opened:
    """A file that can be run.

    Attributes:
        run: Runs it on what it takes.
        inputs: Names of what it takes.
        record: The text of its `Record`; empty in a file of another program.
    """

    run: Run
    inputs: tuple[str, ...]
    record: str

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs it; columns that it does not take are left out."""
        return self.run({name: batch[name] for name in self.inputs})


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: How the names of its files end.
        needs: Packages that write it, and the first of them that runs it; the extra of its name
            installs them.
        write: Writes a traced program to a path, with the text of its `Record`.
        run: Opens a file, for a number of threads; None for all.
        quantize: Turns the linear layers of what was written into 8-bit integers.
        needs_int8: Packages that this takes beside the others.
        calibrates: Whether it can find scales on texts.
    """

    name: str
    suffix: str
    needs: tuple[str, ...]
    write: Callable[[Any, Path, str], None]
    run: Callable[[Path, int | None], Opened]
    quantize: Callable[[Path, Batches | None], None] | None = None
    needs_int8: tuple[str, ...] = ()
    calibrates: bool = False

    def check_installed(self, int8: bool = False) -> None:
        """Raises a MissingExtraError that names the extra, or a DataError if there is no int8."""
        if int8 and self.quantize is None:
            raise DataError(
                f"export to {self.name} has no int8; in torch, quantize(model) runs in int8 as it "
                "is, and files for onnx and openvino can be int8"
            )
        needs = self.needs + (self.needs_int8 if int8 else ())
        self._check(f"export to {self.name}{' in int8' * int8}", needs)

    def check_runs(self) -> None:
        """Raises a MissingExtraError where what runs its files is not installed."""
        self._check(f"running a file of {self.name}", self.needs[:1])

    def _check(self, what: str, needs: tuple[str, ...]) -> None:
        if missing := [name for name in needs if find_spec(name) is None]:
            raise MissingExtraError(
                f'{what} needs {", ".join(missing)}: pip install "sparseattn[{self.name}]"'
            )


def program_of(model: Exportable) -> Any:
    """Traces a model for any batch and length; a program can be written once.

    Returns:
        A `torch.export.ExportedProgram`.

    Raises:
        PlanError: The tracer of this torch is too old.
    """
    if not hasattr(torch.compiler, "is_exporting"):
        raise PlanError(f"exporting needs a newer torch than {torch.__version__}")
    # A tensor for each: the tracer would take one that comes twice for the same input.
    size = _BATCH, min(_LENGTH, model.longest or _LENGTH)
    example = tuple(torch.ones(size, dtype=torch.int64) for _ in model.inputs)
    sizes = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1, max=model.longest)
    shapes = (dict(enumerate(sizes)),) * len(model.inputs)
    with torch.no_grad(), quietly():
        return torch.export.export(model, example, dynamic_shapes=shapes)


def format_of(path: Path, name: str | None = None) -> Format:
    """The format of a file, by its name or else by how its path ends.

    Raises:
        DataError: There is no such format, or the path ends otherwise.
    """
    if name is not None and name not in FORMATS:
        raise DataError(unknown("format", name, FORMATS))
    fitting = [f for f in FORMATS.values() if name in (None, f.name) and f.suffix == path.suffix]
    if not fitting:
        wanted = [FORMATS[name]] if name else list(FORMATS.values())
        ends = ", ".join(f"{each.suffix} ({each.name})" for each in wanted)
        raise DataError(f"cannot export to {path}: its name must end with {ends}")
    return fitting[0]


# --- ONNX


def _write_onnx(program: Any, path: Path, record: str) -> None:
    with quietly():
        names = list(program.graph_signature.user_inputs)
        made = torch.onnx.export(
            program,
            input_names=names,
            output_names=list(program.call_spec.out_spec.context),  # a dict
            dynamic_shapes=({0: "batch", 1: "length"},) * len(names),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.model.metadata_props[_RECORD] = record
        made.save(path, external_data=False)


def _open_onnx(path: Path, threads: int | None = None) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = session.run(names, {name: value.numpy() for name, value in batch.items()})
        return dict(zip(names, map(torch.from_numpy, arrays), strict=True))

    record = session.get_modelmeta().custom_metadata_map.get(_RECORD, "")
    return Opened(run, tuple(each.name for each in session.get_inputs()), record)


# --- OpenVINO


def _write_openvino(program: Any, path: Path, record: str) -> None:
    import openvino

    with TemporaryDirectory() as folder:
        # OpenVINO reads a program of torch, too, but not one with several kinds of windows.
        draft = Path(folder, "model.onnx")
        _write_onnx(program, draft, record)
        model = openvino.convert_model(draft)
    model.set_rt_info(record, [_RECORD])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # it says nothing of the system's reason
        raise OSError(errno.EIO, f"{first_line(error)}; is the disk full?") from error


def open_openvino(path: Path, threads: int | None = None, precision: str = "f32") -> Opened:
    """Opens a file of OpenVINO, to compute in `f32` or `bf16`."""
    import openvino

    with path.open("rb") as file:
        if b"<net" not in file.read(200):  # OpenVINO would try other frontends, loudly
            raise DataError(f"{path} is no file of openvino: it holds no network")
    settings = {"INFERENCE_PRECISION_HINT": precision}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", settings)
    names = [port.get_any_name() for port in compiled.outputs]

    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = compiled({name: value.numpy() for name, value in batch.items()})
        return {name: torch.from_numpy(arrays[name].copy()) for name in names}

    known = model.has_rt_info([_RECORD])
    record = str(model.get_rt_info([_RECORD]).value) if known else ""
    return Opened(run, tuple(port.get_any_name() for port in compiled.inputs), record)


# --- torch


def _write_torch(program: Any, path: Path, record: str) -> None:
    content = io.BytesIO()  # torch ends the process where it cannot write to a file
    with quietly():
        torch.export.save(program, content, extra_files={_RECORD: record})
    path.write_bytes(content.getbuffer())


def _open_torch(path: Path, _threads: int | None = None) -> Opened:
    files, content = {_RECORD: ""}, io.BytesIO(path.read_bytes())
    _refuse_pickles(content, path)
    with quietly():
        program = torch.export.load(content, extra_files=files)
    module, inputs = program.module(), tuple(map(str, program.graph_signature.user_inputs))

    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            output: dict[str, Tensor] = module(*(batch[name] for name in inputs))
        return output

    return Opened(run, inputs, files[_RECORD])


#: What a program's archive may hold: torch would run libraries and unpickle objects beside these.
_PARTS = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|extra/[^/]+"
    r"|archive_format|archive_version|byteorder|version|\.data/[^/]+)"
)


def _refuse_pickles(content: io.BytesIO, path: Path) -> None:
    """Raises a DataError where `torch.export.load` would unpickle more than tensors."""
    with zipfile.ZipFile(content) as archive:
        for name in archive.namelist():
            if not _PARTS.fullmatch(name):
                raise DataError(f"{path}: holds {name!r}, which no exported encoder does; not read")
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(name))["config"].values()
                if any(entry["use_pickle"] for entry in entries):
                    raise DataError(f"{path}: {name} names pickles, which are not read")
            if name.endswith(".pt"):
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    raise DataError(f"{path}: {name} is a pickle of more than tensors") from error
    content.seek(0)


_ALL = (
    Format(
        "onnx",
        ".onnx",
        needs=("onnxruntime", "onnx", "onnxscript"),
        write=_write_onnx,
        run=_open_onnx,
        quantize=quantize_onnx,
    ),
    Format(
        "openvino",
        ".xml",
        needs=("openvino", "onnx", "onnxscript"),
        write=_write_openvino,
        run=open_openvino,
        quantize=quantize_openvino,
        needs_int8=("nncf",),
        calibrates=True,
    ),
    Format("torch", ".pt2", needs=(), write=_write_torch, run=_open_torch),
)
FORMATS = {form.name: form for form in _ALL}
