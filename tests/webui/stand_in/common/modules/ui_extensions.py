"""The tab "Extensions": "Install from URL", and "Apply and restart UI", which ends the process."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path

import gradio as gr
from modules import restart, shared, ui
from modules.call_queue import wrap_gradio_call_no_job
from modules.paths import data_path, extensions_dir


def check_access():
    options = shared.cmd_opts
    assert not (options.listen or options.share or options.server_name), (
        "extension access disabled because of command line flags"
    )


def install_extension_from_url(dirname, url, branch_name=None):
    """Cloned beside its place and moved there; then install.py is run, whose failure is told on the console alone."""
    check_access()
    assert url, "No URL specified"
    name = dirname or url.rstrip("/").split("/")[-1].replace(".git", "")
    target, part = Path(extensions_dir, name), Path(data_path, "tmp", name)
    assert not target.exists(), f"Extension directory already exists: {target}"
    shutil.rmtree(part, True)
    subprocess.run(["git", "clone", "--quiet", "--filter=blob:none", url, str(part)], check=True)
    part.rename(target)
    import launch

    launch.run_extension_installer(str(target))
    return extension_table(), html.escape(f"Installed into {target}. Use Installed tab to restart.")


def apply_and_restart(disable_list, update_list):
    check_access()
    shared.opts.disabled_extensions = json.loads(disable_list or "[]")
    shared.opts.save(shared.config_filename)
    if restart.is_restartable():
        restart.restart_program()
    restart.stop_program()


def extension_table():
    names = sorted(path.name for path in Path(extensions_dir).iterdir() if path.is_dir())
    rows = "".join(f'<tr><td><input name="enable_{name}" type="checkbox" checked>{name}</td></tr>' for name in names)
    return f'<table id="extensions"><tbody>{rows}</tbody></table>'


def create_ui():
    with gr.Blocks(analytics_enabled=False) as interface, gr.Tabs(elem_id="tabs_extensions"):
        with gr.TabItem("Installed", id="installed"):
            apply = gr.Button(
                "Apply and restart UI" if restart.is_restartable() else "Apply and quit", variant="primary"
            )
            off = gr.Textbox(elem_id="extensions_disabled_list", visible=False)
            update = gr.Textbox(elem_id="extensions_update_list", visible=False)
            table = gr.HTML(extension_table, elem_id="extensions_installed_html")
            apply.click(apply_and_restart, [off, update], [], **ui.js("extensions_apply"))
        with gr.TabItem("Install from URL", id="install_from_url"):
            url = gr.Textbox(label="URL for extension's git repository")
            branch = gr.Textbox(label="Specific branch name")
            dirname = gr.Textbox(label="Local directory name")
            install = gr.Button("Install", variant="primary")
            result = gr.HTML(elem_id="extension_install_result")
            made = wrap_gradio_call_no_job(install_extension_from_url, extra_outputs=[gr.update()])
            install.click(made, [dirname, url, branch], [table, result])
    return interface
