"""The demo: sprites, a miniature base that was trained on them, and a mascot that it has never seen."""
