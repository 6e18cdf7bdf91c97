"""The commands of `emupin`, one module each."""
