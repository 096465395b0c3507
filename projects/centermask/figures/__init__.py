"""The paper's Fig. 1 (AP against time) and Fig. 4 (results on images)."""
