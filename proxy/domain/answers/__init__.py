"""What came back: images and chats, passed on or rewritten, and the images in them counted."""
