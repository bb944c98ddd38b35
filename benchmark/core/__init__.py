"""What every other package stands on: errors, the stage store, compute settings, processes, files that users name."""
