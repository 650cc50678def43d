from datasets.gta5.gta5_dataset_builder import Builder, Config

__all__ = ['Builder', 'Config']
