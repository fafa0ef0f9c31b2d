"""Metadata of effjax; the settings of the tools are in pyproject.toml, the reasons for each dependency in BUILD.md."""
import pathlib

from setuptools import find_packages, setup

EXPORT = ['litert-converter>=0.5,<0.7', 'ai-edge-litert>=2.1,<3']
MICRO = ['tflite-micro>=0.dev20261023182759,<1']  # there are only pre-releases
PLOTS = ['matplotlib>=3.8,<4']
WEIGHTS = ['safetensors>=0.5,<1']
TEST = ['pytest>=8,<10', 'pytest-xdist>=3.5,<4', 'hypothesis>=6.100,<7', 'beartype>=0.18,<1', 'ruff>=0.6,<1',
        'nbclient>=0.10,<1', 'nbformat>=5.10,<6', 'ipykernel>=6,<8', 'dm-haiku>=0.0.15,<0.1', 'equinox>=0.13,<0.14']

setup(
    name='effjax',
    version='0.1.0',
    description='Differentiable efficiency for JAX: architecture, bits, masks and distillation in one loss, '
                'out as an exact int8 TFLite file',
    long_description=(pathlib.Path(__file__).parent / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    packages=find_packages(include=['effjax', 'effjax.*']),
    python_requires='>=3.11,<3.14',
    install_requires=[
        'jax>=0.10,<0.13', 'flax>=0.12,<0.14', 'optax>=0.2.5,<0.3', 'chex>=0.1.90,<0.2',
        'orbax-checkpoint>=0.11,<0.13', 'jaxtyping>=0.3,<0.4', 'numpy>=2,<3', 'scikit-learn>=1.5,<2',
        'tensorflow-datasets>=4.9.7,<5', 'array-record>=0.5,<1', 'pillow>=10,<14', 'importlib-resources>=6,<8',
        'requests>=2.31,<3', 'rich>=13,<16', 'tqdm>=4.66,<5'],
    extras_require={'export': EXPORT, 'micro': MICRO, 'plots': PLOTS, 'weights': WEIGHTS, 'test': TEST,
                    'all': EXPORT + MICRO + PLOTS + WEIGHTS},
    entry_points={'console_scripts': ['effjax = effjax.cli:main']},
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ])
