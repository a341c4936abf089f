// Stands in for the WebUI's javascript/ui.js and extensions.js.
"use strict";

var opts = {};
var desiredCheckpointName = null;

/** A1111 takes the first button below #tabs, Forge the same of its first tab. */
function switch_to_txt2img() {
    gradioApp().querySelector("#tabs").querySelectorAll("button")[0].click();
    return Array.from(arguments);
}

/** gradio takes in what a script has written into a field only once it hears of it. */
function updateInput(target) {
    const event = new Event("input", {bubbles: true});
    Object.defineProperty(event, "target", {value: target});
    target.dispatchEvent(event);
}

function selectCheckpoint(name) {
    desiredCheckpointName = name;
    gradioApp().getElementById("change_checkpoint").click();
}

onAfterUiUpdate(() => {
    const field = gradioApp().querySelector("#settings_json textarea");
    if (!field || Object.keys(opts).length) return;
    opts = JSON.parse(field.value);
    executeCallbacks(optionsChangedCallbacks);
});

/** The tokens are counted shortly after the last key in the prompt. */
onUiLoaded(() => {
    let waiting = null;
    gradioApp().querySelector("#txt2img_prompt textarea").addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => gradioApp().getElementById("txt2img_token_button").click(), 800);
    });
});

/** The page is left, and comes back once the server answers again. */
function restart_reload() {
    document.body.innerHTML = "<h1>Reloading...</h1>";
    const ping = () =>
        fetch("./internal/ping").then(
            (answer) => (answer.ok ? location.reload() : setTimeout(ping, 500)),
            () => setTimeout(ping, 500),
        );
    setTimeout(ping, 2000);
    return [];
}

function extensions_apply() {
    const off = Array.from(document.querySelectorAll("#extensions input[name^=enable_]"))
        .filter((box) => !box.checked)
        .map((box) => box.name.substring(7));
    restart_reload();
    return [JSON.stringify(off), "[]"];
}
