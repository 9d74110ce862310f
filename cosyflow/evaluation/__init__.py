"""What comes out of a model, heard by judges: models that are not ours. Their figures decide what becomes champion."""
