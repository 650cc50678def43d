"""Other people's weights as states of ours, read without torch and without running code in them."""
