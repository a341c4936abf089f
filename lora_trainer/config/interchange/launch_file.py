"""The launch lines of a .bat, .ps1 or .sh file, with its simple variables, lists and conditions worked out.

Nothing is run. A condition that is more than a comparison does not hold; a variable that is not set stays as written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lora_trainer.config.interchange.command_line import Launch, launch_of
from lora_trainer.config.interchange.given import split

TRAINS = re.compile(r"(train|fine_tune)\w*\.py", re.IGNORECASE)
LOOSE = re.compile(r"--(network_|pretrained_model|train_data_dir|config_file|dataset_config)")
COMPARISON = re.compile(r"^(.*?)\s*(==|!=|=|-eq|-ne|-gt|-lt|-ge|-le)\s*(.*)$", re.IGNORECASE)
Value = str | list[str]


@dataclass(frozen=True)
class Dialect:
    """How a shell writes what matters here. Names of variables are without case in Windows' two."""

    tell_tale: re.Pattern[str]
    continuations: str  # one of these at the end of a line; some .sh files are copies of .bat files
    comment: re.Pattern[str]
    variable: re.Pattern[str]
    assignment: re.Pattern[str]
    falsy: tuple[str, ...]
    case: bool = False


BATCH = Dialect(
    re.compile(r"^\s*@?(echo off|rem |set\s+\"?\w+=)|\^\s*$|%\w+%", re.IGNORECASE | re.MULTILINE),
    "^",
    re.compile(r"^\s*@?(rem\b|::).*$", re.IGNORECASE),
    re.compile(r"[%!](\w+)[%!]"),
    re.compile(r"^\s*@?set\s+(?:/a\s+)?\"?(?P<name>\w+)(?P<more>)=(?P<value>.*?)\"?\s*$", re.IGNORECASE),
    ("",),
)
POWERSHELL = Dialect(
    re.compile(r"^\s*\$(env:)?\w+\s*=|`\s*$", re.IGNORECASE | re.MULTILINE),
    "`",
    re.compile(r"(^|\s)#.*$"),
    re.compile(r"\$\(?\{?(?:env:|script:|global:)?(\w+)\}?\)?", re.IGNORECASE),
    re.compile(
        r"^\s*(?:\[\w+\])?\$(?:env:|script:|global:)?(?P<name>\w+)\s*(?P<more>\+?)=\s*(?P<value>.*)$", re.IGNORECASE
    ),
    ("", "0", "false"),
)
SHELL = Dialect(
    re.compile(r"^#!|\\\s*$|^\s*(export\s+)?\w+=", re.MULTILINE),
    "\\^",
    re.compile(r"(^|\s)#.*$"),
    re.compile(r"\$(?:\{(?=\w+[}:\[-]))?(\w+)(?:\[[@*]\]\}|:?-(?P<default>[^}]*)\}|\})?"),
    re.compile(r"^\s*(?:export\s+|local\s+|declare\s+(?:-\w+\s+)?)?(?P<name>\w+)(?P<more>\+?)=(?P<value>.*)$"),
    ("",),
    case=True,
)
ENDINGS = {".bat": BATCH, ".cmd": BATCH, ".ps1": POWERSHELL, ".sh": SHELL, ".bash": SHELL}
BATCH_IF = re.compile(r"^(?P<closes>\)\s*else\b)?\s*(?:if\s+(?P<condition>.*?))?\s*\($", re.IGNORECASE)
BATCH_IF_SET = re.compile(r"^if\s+(?P<condition>.*?)\s+(?P<then>set\s.*)$", re.IGNORECASE)
ADDED = re.compile(r"^\s*(?:\[void\]\s*)?\$(\w+)\.Add\((.*)\)\s*;?\s*$", re.IGNORECASE)


def launches_of(text: str, ending: str = "") -> list[Launch]:
    """Every command of a file that starts one of sd-scripts' trainers; without one, what looks like its arguments."""
    dialect = ENDINGS.get(ending.lower()) or next(
        (each for each in (BATCH, POWERSHELL, SHELL) if each.tell_tale.search(text)), SHELL
    )
    commands = list(_Reading(dialect).commands(text))
    training = [command for command in commands if TRAINS.search(command)]
    return [launch_of(split(command)) for command in training or filter(LOOSE.search, commands)]


@dataclass
class _Reading:
    dialect: Dialect
    variables: dict[str, Value] = field(default_factory=dict)
    branches: list[tuple[bool, bool]] = field(default_factory=list)  # (this one holds, one has held)
    held: bool = False  # whether the branch closed last, or one before it, has held
    pending: tuple[bool, bool] = (True, True)  # what PowerShell's next brace opens

    def commands(self, text: str) -> Iterator[str]:
        for line in self._statements(text):
            if self._branches(line) or not all(holds for holds, _ in self.branches):
                continue
            rest = self._assigned(line)
            if rest and "--" in rest:
                yield self._filled(rest)

    def _statements(self, text: str) -> Iterator[str]:
        for line in _joined(text, self.dialect):
            if self.dialect is POWERSHELL:
                line = re.sub(r"\$\{(\w+)\}", r"$\1", line)
                yield from _cut(line, "{};", keep="{}")
            elif self.dialect is SHELL:
                yield from (re.sub(r"^(then|do)\s+", "", part) for part in _cut(line, ";"))
            else:
                yield line

    def _branches(self, line: str) -> bool:
        """Whether the line is about branches; they are noted."""
        if self.dialect is POWERSHELL:
            return self._powershell_branches(line)
        return self._shell_branches(line) if self.dialect is SHELL else self._batch_branches(line)

    def _batch_branches(self, line: str) -> bool:
        if line == ")":
            self._close()
        elif match := BATCH_IF.match(line):
            holds = match["condition"] is None or self._batch_holds(match["condition"])
            self._next(holds) if match["closes"] else self._open(holds)
        return line == ")" or bool(match)

    def _batch_holds(self, condition: str) -> bool:
        text = re.sub(r"^/i\s+", "", condition.strip(), flags=re.IGNORECASE)
        plain = re.sub(r"^not\s+", "", text, flags=re.IGNORECASE)
        if defined := re.match(r"^defined\s+(\w+)", plain, re.IGNORECASE):
            return bool(self.variables.get(self._key(defined[1]))) == (plain == text)
        match = re.match(r"^\"?(.*?)\"?\s*(?:==|equ)\s*\"?(.*?)\"?$", self._filled(plain, unset=""), re.IGNORECASE)
        return match is not None and (match[1] == match[2]) == (plain == text)

    def _shell_branches(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        if word == "if":
            self._open(self._holds(rest))
        elif word == "elif":
            self._next(self._holds(rest))
        elif word == "else":
            self._next(True)
            return not rest
        elif word == "fi":
            self._close()
        return word in ("if", "elif", "fi", "then", "else")

    def _powershell_branches(self, line: str) -> bool:
        match = re.match(r"^(if|elseif|else|foreach|while|function|try|catch)\b\s*(.*)$", line, re.IGNORECASE)
        word = match[1].lower() if match else ""
        if match:
            holds = word in ("else", "try") or (word in ("if", "elseif") and self._holds(match[2]))
            held = word in ("else", "elseif") and self.held
            self.pending = (holds and not held, holds or held)
        elif line == "{":
            self.branches.append(self.pending)
            self.pending = (True, True)
        elif line == "}":
            self._close()
        return bool(match) or line in "{}"

    def _open(self, holds: bool) -> None:
        self.branches.append((holds, holds))

    def _next(self, holds: bool) -> None:
        if self.branches:
            _, held = self.branches.pop()
            self.branches.append((holds and not held, holds or held))

    def _close(self) -> None:
        if self.branches:
            _, self.held = self.branches.pop()

    def _holds(self, condition: str) -> bool:
        """A comparison, or whether a value is there; anything else does not hold."""
        text = condition.strip().removeprefix("[[").removesuffix("]]").strip("[]() ")
        if match := COMPARISON.match(text):
            left, right = self._bare(match[1]), self._bare(match[3])
            return _compared(left, match[2].lower(), right)
        negated = text.startswith(("-z ", "! ", "-not "))
        value = self._bare(re.sub(r"^(-n|-z|!|-not)\s+", "", text))
        known = not re.match(r"^(-\w|\w+\s+\S)", value)
        return known and (value.lower() in self.dialect.falsy) == negated

    def _bare(self, text: str) -> str:
        return self._filled(text, unset="").strip().strip("\"'")

    def _assigned(self, line: str) -> str:
        """Notes an assignment; what is left of the line is a command."""
        if self.dialect is POWERSHELL and (added := ADDED.match(line)):
            self._extend(added[1], self._items(added[2]))
            return ""
        if self.dialect is BATCH and (one := BATCH_IF_SET.match(line)):
            line = one["then"] if self._batch_holds(one["condition"]) else ""
        match = self.dialect.assignment.match(line)
        if match is None:
            return line
        value = match["value"].strip()
        if value.startswith(("(", "@(")):
            items = self._items(value.lstrip("@").strip("()"))
            self._extend(match["name"], items, afresh=not match["more"])
            return ""
        if "::new()" in value:
            self.variables[self._key(match["name"])] = []
            return ""
        words = split(value)
        if self.dialect is SHELL and len(words) > 1:  # a variable for one command only
            return value.partition(" ")[2]
        self._extend(match["name"], self._items(value)) if match["more"] else self._set(match["name"], value)
        return ""

    def _items(self, text: str) -> list[str]:
        words = split(self._filled(self._put_together(text)))
        return [word.rstrip(",") if self.dialect is POWERSHELL else word for word in words if word != ","]

    def _put_together(self, text: str) -> str:
        """PowerShell's `"a" + "b"` and `"a" + $b` as one text."""
        if self.dialect is not POWERSHELL:
            return text
        text = re.sub(r'\$(\w+)"\s*\+\s*"', r"${\1}", text)
        return re.sub(r'"\s*\+\s*(\$\w+)', r'\1"', re.sub(r'"\s*\+\s*"', "", text))

    def _set(self, name: str, value: str) -> None:
        text = self._filled(self._put_together(value))
        words = split(text)
        self.variables[self._key(name)] = text if self.dialect is BATCH else " ".join(words)

    def _extend(self, name: str, items: list[str], afresh: bool = False) -> None:
        known = [] if afresh else self.variables.get(self._key(name), [])
        self.variables[self._key(name)] = [*(known if isinstance(known, list) else [known]), *items]

    def _filled(self, text: str, unset: str | None = None) -> str:
        """With the values of its variables; one that is not set stays as it is, or becomes `unset`."""

        def value(match: re.Match[str]) -> str:
            found = self.variables.get(self._key(match[1]))
            if not found and match.groupdict().get("default") is not None:
                return str(match["default"]).strip("\"'")
            if found is None:
                return match[0] if unset is None else unset
            return _spread(found) if isinstance(found, list) else found

        return self.dialect.variable.sub(value, re.sub(r"\"(\$\{\w+\[@\]\})\"", r"\1", text))

    def _key(self, name: str) -> str:
        return name if self.dialect.case else name.lower()


def _spread(items: list[str]) -> str:
    """A list within a command; an item with a space in it is one word unless it brings its own option."""
    return " ".join(f'"{item}"' if " " in item and not item.startswith("--") else item for item in items)


def _compared(left: str, operator: str, right: str) -> bool:
    tests: dict[str, Callable[[float, float], bool]] = {
        "-gt": lambda a, b: a > b,
        "-lt": lambda a, b: a < b,
        "-ge": lambda a, b: a >= b,
        "-le": lambda a, b: a <= b,
    }
    try:
        a, b = float(left), float(right)
    except ValueError:
        same = left.lower() == right.lower()
        return same if operator in ("==", "=", "-eq") else not same if operator in ("!=", "-ne") else False
    return tests[operator](a, b) if operator in tests else (a == b) == (operator in ("==", "=", "-eq"))


def _joined(text: str, dialect: Dialect) -> Iterator[str]:
    """Whole lines: without comments, continued ones and open lists put together."""
    whole, open_list = "", False
    for line in re.sub(r"<#.*?#>", "", text, flags=re.DOTALL).splitlines():
        line = _uncommented(line, dialect).strip()
        continued = line[-1:] in dialect.continuations if line else False
        whole = f"{whole} {line[:-1] if continued else line}".strip()
        open_list = whole.count("(") > whole.count(")") and re.match(r"^\$?\w+\s*\+?=\s*@?\(", whole) is not None
        if not (continued or open_list):
            if whole:
                yield whole
            whole = ""
    if whole:
        yield whole


def _uncommented(line: str, dialect: Dialect) -> str:
    match = dialect.comment.search(line)
    while match:
        before = line[: match.start()]
        if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            return before
        match = dialect.comment.search(line, match.start() + 1)
    return line


def _cut(line: str, separators: str, keep: str = "") -> Iterator[str]:
    """A line at separators that are not in quotes; those in `keep` are parts themselves."""
    part, quote = "", ""
    for letter in line:
        if quote or letter not in separators:
            part += letter
            quote = "" if letter == quote else quote or (letter if letter in "\"'" else "")
            continue
        yield from filter(None, (part.strip(), letter if letter in keep else ""))
        part = ""
    yield from filter(None, (part.strip(),))
