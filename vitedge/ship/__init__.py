"""What goes with artifacts to whoever runs them: signatures and bills of materials."""
