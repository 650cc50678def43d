from car_jax.datasets.lidc_dicom.lidc_dicom_dataset_builder import Builder, Config
