// Stands in for the WebUI's script.js: what extensions may call, and when they are called.
"use strict";

var uiLoadedCallbacks = [];
var uiUpdateCallbacks = [];
var uiAfterUpdateCallbacks = [];
var uiTabChangeCallbacks = [];
var optionsChangedCallbacks = [];
var uiLoaded = false;
var uiShown = null;
var uiTimer = null;

function gradioApp() {
    const app = document.querySelector("gradio-app");
    if (!app) return document;
    app.getElementById = (id) => document.getElementById(id);
    return app.shadowRoot || app;
}

const get_uiCurrentTab = () => gradioApp().querySelector("#tabs > .tab-nav > button.selected");
const get_uiCurrentTabContent = () =>
    gradioApp().querySelector('#tabs > .tabitem[id^=tab_]:not([style*="display: none"])');
const onUiLoaded = (act) => uiLoadedCallbacks.push(act);
const onUiUpdate = (act) => uiUpdateCallbacks.push(act);
const onAfterUiUpdate = (act) => uiAfterUpdateCallbacks.push(act);
const onUiTabChange = (act) => uiTabChangeCallbacks.push(act);
const onOptionsChanged = (act) => optionsChangedCallbacks.push(act);

function executeCallbacks(acts, argument) {
    for (const act of acts) {
        try {
            act(argument);
        } catch (trouble) {
            console.error("error running callback", act, ":", trouble);
        }
    }
}

document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver((changes) => {
        if (!uiLoaded && gradioApp().querySelector("#txt2img_prompt")) {
            uiLoaded = true;
            executeCallbacks(uiLoadedCallbacks);
        }
        executeCallbacks(uiUpdateCallbacks, changes);
        clearTimeout(uiTimer);
        uiTimer = setTimeout(() => executeCallbacks(uiAfterUpdateCallbacks), 200);
        const shown = get_uiCurrentTab();
        if (shown && shown !== uiShown) {
            uiShown = shown;
            executeCallbacks(uiTabChangeCallbacks);
        }
    }).observe(gradioApp(), {childList: true, subtree: true});
});
