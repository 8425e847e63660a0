"""Label Studio's side of the house: labelling configs out, results in and out, exports in."""
