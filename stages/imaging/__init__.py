"""What training and the online stages share of pictures: numpy and cv2, no torch."""
