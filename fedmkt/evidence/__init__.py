"""The evidence of a run, for somebody who was not there: one folder, one page, one signature over all."""
