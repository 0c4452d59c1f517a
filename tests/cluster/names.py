"""Queue and exchange names that a hash tag could stumble over."""

ODD_NAMES = (
    "celery", "", " ", "a b", "\n", "a\nb", "\x00", "ü✓", "名前", "a:b", "*", "[a]",
    "{", "}", "{}", "}{", "{{", "}}", "{a}", "a{b}c", "{a", "a}", "}a", "}}a", "{}a", "a{}", "a{",
    "%", "%%", "%7D", "%7Da", "%}", "%s", "feed.ids:{x}", "x" * 10_000,
)  # fmt: skip
