"""Features made of pixels: a frame's by a ResNet, its regions' by a detector, as VGT reads them."""
