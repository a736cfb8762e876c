"""What training and the online stages share of models: facts, layouts, NMS, engines."""
