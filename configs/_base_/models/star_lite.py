_base_ = ['./star.py', './lite.py']
model = {{_base_.lite_model}}
