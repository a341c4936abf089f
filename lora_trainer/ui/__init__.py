"""The tab as gradio draws it: where things stand, and a widget for each setting. What moves is drawn by javascript/."""
