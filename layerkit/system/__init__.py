"""The system below: files, locks of folders, signals, threads and free memory."""
