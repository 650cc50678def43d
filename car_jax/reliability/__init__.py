"""Can a segmenter be trusted under shift? Models x data sets x calibrators, counted and shown."""
