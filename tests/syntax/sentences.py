"""Text whose words a parser and a tokenizer may cut differently."""

TRICKY = [
    "I don't know what she's done, but they can't've left: it isn't y'all's.",
    "A well-known state-of-the-art re-examination of the ex-president's twenty-one books.",
    "Great 👍🏽 work 👩‍👩‍👧‍👦 and ❤️‍🔥 flags 🇩🇪🇫🇷! See you 😀😀",
    "他说北京很大。东京とソウルも大きい。 He said so.",
    "قال الرجل إنّ الكتابَ جديدٌ. She agreed.",
    "Cafe\u0301 na\u00efve re\u0301sume\u0301 a\u0308\u0323o\u0302 Zu\u0308rich \u1e9b\u0323 is.",
    "See https://example.org/a_b?c=d&e=f#g or mail o'neil+x@mail.example.co.uk, please.",
    "Several   spaces,\ttabs\t\tand\n\nnew lines.\r\nIt goes  on .  ",
    "  \n leading whitespace, and trailing \u00a0\u2003\u3000 ",
    "The ﬁle costs ½ of ①② or 5㎏, i.e. ﷺ Ⅷ times.",
    "zero\u200bwidth\u200djoin\ufeffer and soft\u00adhyphen \u2060word.",
    "हिन्दी में लिखा हुआ वाक्य। ภาษาไทยไม่มีช่องว่าง Dr. Smith's U.S.-based C++ app.",
    "one [SEP] two [CLS] </s> three <s> <unk> four",
    "... --- !!! ??? :-) ;) <3 \u2014\u2014 \u201cquoted\u201d 'single' ``ticks''",
    "Supercalifragilisticexpialidociousness pneumonoultramicroscopicsilicovolcanoconiosis",
    "x",
    "\U0001d573\U0001d58a\U0001d591\U0001d591\U0001d594 𠜎𠜱 ok",
    "İstanbul'da ǅ ŉ ΐ ß STRASSE",
    "a\x00b \x07 c\x7fd",
]

#: Text in which there is no word.
BLANK = [" ", "   ", "\n\n", "\t \u00a0"]
