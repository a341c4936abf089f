"""The settings, kept in config.json."""

from __future__ import annotations

import json
from pathlib import Path


class OptionInfo:
    def __init__(
        self,
        default=None,
        label="",
        component=None,
        component_args=None,
        onchange=None,
        section=None,
        refresh=None,
        comment_before="",
        comment_after="",
        infotext=None,
        restrict_api=False,
        category_id=None,
    ):
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.onchange, self.section, self.refresh, self.infotext = onchange, section, refresh, infotext
        self.comment_before, self.comment_after = comment_before, comment_after
        self.restrict_api, self.category_id, self.do_not_save = restrict_api, category_id, False

    def info(self, text):
        self.comment_after += f"<span class='info'>({text})</span>"
        return self

    def html(self, text):
        self.comment_after += text
        return self

    def needs_restart(self):
        return self.info("requires restart")

    def needs_reload_ui(self):
        return self.info("requires Reload UI")


def options_section(section, options):
    for option in options.values():
        option.section = section[:2]
    return options


class Options:
    """An option of an extension that is not registered yet keeps the value that config.json has for it."""

    def __init__(self, data_labels):
        self.__dict__.update(data_labels=data_labels, data={})

    def __getattr__(self, name):
        if name in self.data:
            return self.data[name]
        if name in self.data_labels:
            return self.data_labels[name].default
        raise AttributeError(name)

    def __setattr__(self, name, value):
        if name in self.data or name in self.data_labels:
            self.data[name] = value
        else:
            super().__setattr__(name, value)

    def add_option(self, key, info):
        self.data_labels[key] = info
        if key not in self.data and not info.do_not_save:
            self.data[key] = info.default

    def set(self, key, value, is_api=False, run_callbacks=True):
        if self.data.get(key) == value or (is_api and self.data_labels[key].restrict_api):
            return False
        setattr(self, key, value)
        if run_callbacks and self.data_labels[key].onchange:
            self.data_labels[key].onchange()
        return True

    def onchange(self, key, act, call=False):
        self.data_labels[key].onchange = act
        if call:
            act()

    def get_default(self, key):
        return self.data_labels[key].default

    def save(self, filename):
        Path(filename).write_text(json.dumps(self.data, indent=4, ensure_ascii=False), encoding="utf-8")

    def load(self, filename):
        if Path(filename).is_file():
            self.data.update(json.loads(Path(filename).read_text(encoding="utf-8")))

    def dumpjson(self):
        return json.dumps({key: self.data.get(key, info.default) for key, info in self.data_labels.items()})
