"""What a run tells about itself: events, progress, explanations, traces."""
