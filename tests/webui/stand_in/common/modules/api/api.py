"""The routes under /sdapi/v1 that the checks ask, guarded by --api-auth alone."""

from __future__ import annotations

import base64
import io
import secrets
import time

from fastapi import Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import processing, sd_models, shared, timer

FIELDS = (
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "cfg_scale",
    "width",
    "height",
    "sampler_name",
    "override_settings",
)


def add_internal(app):
    app.add_api_route("/internal/profile-startup", lambda: timer.startup_record, methods=["GET"])
    app.add_api_route("/internal/ping", lambda: {}, methods=["GET"])


def api_middleware(app):
    """A layer around the app, which starlette refuses once the app has answered anything."""

    @app.middleware("http")
    async def time_taken(request: Request, call_next):
        began = time.time()
        answer = await call_next(request)
        answer.headers["X-Process-Time"] = str(round(time.time() - began, 4))
        return answer


class Api:
    def __init__(self, app, queue_lock):
        self.queue_lock = queue_lock
        given = (shared.cmd_opts.api_auth or "").split(",")
        api_middleware(app)
        self.credentials = dict(pair.split(":") for pair in given if pair)
        guard = [Depends(self.auth)] if self.credentials else []
        routes = {"options": self.options, "sd-models": self.models, "cmd-flags": self.flags}
        for name, answer in routes.items():
            app.add_api_route(f"/sdapi/v1/{name}", answer, methods=["GET"], dependencies=guard)
        app.add_api_route("/sdapi/v1/options", self.set_options, methods=["POST"], dependencies=guard)
        app.add_api_route("/sdapi/v1/txt2img", self.txt2img, methods=["POST"], dependencies=guard)
        app.add_api_route("/sdapi/v1/refresh-checkpoints", self.refresh, methods=["POST"], dependencies=guard)

    def auth(self, given: HTTPBasicCredentials = Depends(HTTPBasic())):  # noqa: B008
        wanted = self.credentials.get(given.username)
        if wanted is None or not secrets.compare_digest(given.password, wanted):
            raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})

    def options(self):
        return JSONResponse({key: shared.opts.data.get(key) for key in shared.opts.data_labels})

    async def set_options(self, request: Request):
        for key, value in (await request.json()).items():
            shared.opts.set(key, value, is_api=True)
        shared.opts.save(shared.config_filename)
        return JSONResponse(None)

    def models(self):
        return JSONResponse(
            [{"title": info.title, "filename": info.filename} for info in sd_models.checkpoints_list.values()]
        )

    def flags(self):
        return JSONResponse({key: str(value) for key, value in vars(shared.cmd_opts).items()})

    def refresh(self):
        with self.queue_lock:
            sd_models.list_models()
        return JSONResponse(None)

    async def txt2img(self, request: Request):
        from starlette.concurrency import run_in_threadpool

        return JSONResponse(await run_in_threadpool(self._txt2img, await request.json()))

    def _txt2img(self, body):
        given = {key: body[key] for key in FIELDS if key in body}
        with self.queue_lock:
            p = processing.StableDiffusionProcessingTxt2Img(
                sd_model=shared.sd_model, do_not_save_samples=not body.get("save_images"), **given
            )
            shared.state.begin(job="scripts_txt2img")
            try:
                processed = self._made(p)
            finally:
                shared.state.end()
        return {"images": [_encoded(image) for image in processed.images], "info": processed.js()}

    def _made(self, p):
        if not shared.is_forge:
            return processing.process_images(p)
        from modules_forge import main_thread

        return main_thread.run_and_wait_result(processing.process_images, p)


def _encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
