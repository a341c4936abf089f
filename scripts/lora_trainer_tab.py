"""Where the WebUI looks for the extension's tab. It has none: training is done on the command line."""
