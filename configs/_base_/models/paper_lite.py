_base_ = ['./paper.py', './lite.py']
model = {{_base_.lite_model}}
