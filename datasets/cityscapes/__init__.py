from car_jax.datasets.cityscapes.cityscapes_dataset_builder import Builder, Config
