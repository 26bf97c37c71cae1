"""What is wrong with a data set: copies, poor pictures, strays, doubtful labels."""
