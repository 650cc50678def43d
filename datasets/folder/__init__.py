from car_jax.datasets.folder.folder_dataset_builder import Builder, Config
