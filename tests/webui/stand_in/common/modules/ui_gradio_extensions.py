"""Scripts, styles and words, put into gradio's page."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from modules import localization, scripts
from modules.paths import script_path

_original = gr.routes.templates.TemplateResponse


def webpath(path: str) -> str:
    inside = Path(path).is_relative_to(script_path)
    place = Path(path).relative_to(script_path) if inside else Path(path)
    return f"file={place.as_posix()}?{Path(path).stat().st_mtime}"


def reload_javascript() -> None:
    files = [str(Path(script_path, "script.js")), *(file.path for file in scripts.list_scripts("javascript", ".js"))]
    head = f'<script type="text/javascript">{localization.localization_js()}</script>\n'
    head += "".join(f'<script type="text/javascript" src="{webpath(path)}"></script>\n' for path in files)
    styles = [webpath(path) for path in scripts.list_files_with_name("style.css")]
    css = "".join(f'<link rel="stylesheet" property="stylesheet" href="{href}">' for href in styles)

    def template_response(*args, **kwargs):
        answer = _original(*args, **kwargs)
        body = answer.body.replace(b"</head>", f'{head}<meta name="referrer" content="no-referrer"/></head>'.encode())
        answer.body = body.replace(b"</body>", f"{css}</body>".encode())
        answer.init_headers()
        return answer

    gr.routes.templates.TemplateResponse = template_response
