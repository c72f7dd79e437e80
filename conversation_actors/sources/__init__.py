"""Where settings come from (keywords, the environment, ``.env`` files), and how mistakes in them are reported."""

from conversation_actors.sources.durations import Duration
from conversation_actors.sources.groups import KEEPS_EMPTY, OrderedSettings, SettingsGroup, settings_config

__all__ = ["KEEPS_EMPTY", "Duration", "OrderedSettings", "SettingsGroup", "settings_config"]
