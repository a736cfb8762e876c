"""Where results go: events, video, snapshots, a window, nowhere."""
