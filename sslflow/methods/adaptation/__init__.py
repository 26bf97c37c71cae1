"""Methods of domain adaptation, one file each; the file name is the method's name in `params.yaml`."""
