"""What is said where something is missing that an extra of this package brings: one sentence, and what to install."""

_EXTRAS = {
    "livekit.plugins": ("LiveKit's plugins for OpenAI and Deepgram", "agent"),
    "livekit": ("livekit-agents", "agent"),
    "aiohttp": ("aiohttp", "agent"),
    "numpy": ("numpy", "agent"),
    "PIL": ("pillow", "agent"),
}


def missing_extra(error: ImportError, who: str) -> str | None:
    """Return the sentence about what `who` needs; None if no extra brings what cannot be imported."""
    module = error.name or ""
    for name, (package, extra) in _EXTRAS.items():
        if module == name or module.startswith(f"{name}."):
            return f"{who} needs {package}: pip install 'conversation-actors[{extra}]'"
    return None
