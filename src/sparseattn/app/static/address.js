// The address that brings a view back: what differs from its defaults.

export function addressOf(view, state, defaults) {
  const told = Object.entries(state).filter(([name, value]) => name in defaults && value !== defaults[name]);
  const query = new URLSearchParams(told).toString();
  return `#${view}${query ? `?${query}` : ""}`;
}

export function read(hash) {
  const [view, query] = hash.replace(/^#/, "").split(/\?(.*)/s);
  return [view, Object.fromEntries(new URLSearchParams(query ?? ""))];
}
