"""What is compared with: images and maps, and where intensity is wanted."""
