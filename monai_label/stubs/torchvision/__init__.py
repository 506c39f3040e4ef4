"""Stands in for torchvision, of which MONAI Label's server imports two names that it never calls for this bundle."""
