"""Sources of frames: cameras, files, folders of pictures, rendered scenes."""
