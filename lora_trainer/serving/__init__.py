"""The trainer's own web page: the tab of a WebUI, without the WebUI."""
