"""Pure mathematics: functions of tensors without state."""
