"""Detection in videos and streams: decoding, the model, and drawing and encoding run at the same time.

============== ======================================================
``inputs``     what the words of a command are: images, videos, streams
``source``     frames of a video, a stream or a webcam
``threads``    work that runs beside the model
``tracking``   one id for an object in all its frames
``drawing``    detections on a frame
``writer``     the video that is written
``results``    detections by frame, as COCO results
``window``     frames shown while they are made
``prediction`` all of it together
============== ======================================================
"""
