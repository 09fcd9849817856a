"""Guest systems as names, files and bytes; nothing here knows what a machine is."""
