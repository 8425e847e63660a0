"""All state of a home or a server in one archive, and back."""

from dermloop.backup.places import Places
from dermloop.backup.restoring import RestoreReport, restore
from dermloop.backup.taking import BackupReport, take

__all__ = ["BackupReport", "Places", "RestoreReport", "restore", "take"]
