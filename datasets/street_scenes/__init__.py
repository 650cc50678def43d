from datasets.street_scenes.street_scenes_dataset_builder import Builder, Config

__all__ = ['Builder', 'Config']
