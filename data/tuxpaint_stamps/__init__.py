"""Pictures with captions and recordings in 12 languages from Tux Paint's stamps. GPL-2: built by you, never shipped."""
