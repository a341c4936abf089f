// Stands in for the WebUI's javascript/localization.js: every text of the page that is in window.localization.
"use strict";

function localizeTexts(node) {
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode;
        const word = window.localization[text.textContent.trim()];
        const inside = text.parentElement?.nodeName;
        if (word && !["SCRIPT", "STYLE", "TEXTAREA"].includes(inside)) text.textContent = word;
    }
}

onUiUpdate((changes) => changes.forEach((change) => change.addedNodes.forEach(localizeTexts)));
