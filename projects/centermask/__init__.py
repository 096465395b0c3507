"""CenterMask: real-time anchor-free instance segmentation on MMDetection."""
