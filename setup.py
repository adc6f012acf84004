import pathlib
import re

from setuptools import find_packages
from setuptools import setup

FOLDER = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"',
    (FOLDER / "atent_keras" / "version.py").read_text(encoding="utf-8"),
)[1]

setup(
    name="atent_keras",
    version=VERSION,
    description=(
        "Adversarially robust training in Keras 3 by entropic regularization "
        "(ATENT)"
    ),
    long_description=(FOLDER / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["atent_keras", "atent_keras.*"]),
    python_requires=">=3.10",
    install_requires=[
        "absl-py",
        "importlib_resources",  # tensorflow-datasets does not declare it
        "keras>=3.8",
        "numpy",
        "scipy>=1.10",
        "tensorflow>=2.18",
        "tensorflow-datasets>=4.9.7",
    ],
    extras_require={
        "benchmarks": ["adversarial-robustness-toolbox>=1.20"],
        "docs": [
            "ipykernel",
            "jupytext",
            "matplotlib>=3.8",
            "mkdocs>=1.6,<2",
            "mkdocs-jupyter>=0.26",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=1.0",
            "scikit-learn>=1.4",
        ],
        "examples": [
            "matplotlib>=3.8",
            "scikit-learn>=1.4",
            "tensorboard>=2.18",
        ],
        "formats": [
            "ai-edge-litert",
            "onnxruntime",
            "openvino",
            "tf2onnx",
        ],
        "test": [
            "matplotlib>=3.8",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "scikit-learn>=1.4",
            "tensorboard>=2.18",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords="adversarial robustness keras tensorflow entropy sgld",
)
